"""A mock OAuth issuer over real HTTP: it stands in for the issuer, and is strict where that is.

Speaks as the issuer of Codex CLI does: GET /oauth/authorize (approves by itself, with a redirect),
POST /oauth/token (codes as a form, refresh credentials as JSON), POST /oauth/revoke, and the device
flow below /api/accounts/deviceauth. Refresh credentials work once; the second use of one ends the
whole family (401 refresh_token_reused), and whatever of that family comes then is 401
refresh_token_invalidated. `leeway` (seconds, 0) lets the last used one be used again while nobody
has used what it gave: some issuers do so for lost answers.

What goes wrong is set with POST /manners, as JSON, or on `Issuer.manners`:

    slow_before=S   wait before a token request is handled      slow_after=S   ... before it is told
    lose=N          handle the next N token requests, and close the connection without an answer
    drop=N          close the next N connections unhandled      fail=N         answer N times 500
    garbage=N       handle, and answer 200 with what is no JSON
    busy=N          answer N times 429 with Retry-After: 7      huge=N         ... 200 with 1 MiB
    redirect=N      answer N times 307 to another address       compressed=N   ... 200 in gzip
    omit=[names]    leave these keys out of the answers         lifetime=S     of access credentials
    pending=N       answer N polls of a device code with 403 or 404, in turn; then it is approved
    deny=true       authorize answers error=access_denied, and a device poll 403 access_denied
    bad_state=true  authorize sends the browser back with another state

POST /grants (email, account_id, plan) gives a new login without a browser, POST /end (account_id)
ends one as if its owner had signed out. GET /live with a bearer says 200 or 401: whether an
upstream would take it. GET /counts tells what was counted. With `--json-log FILE` each request is a
line there, by family and generation, without a credential.
"""

from tests.issuer.book import Book, Login
from tests.issuer.server import Issuer, start

__all__ = ["Book", "Issuer", "Login", "start"]
