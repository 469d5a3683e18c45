"""A scripted model server: it stands in for the model, and for nothing else.

What it does is chosen by the request. The last user text may hold directives in double brackets:

    Tell me a story [[words=40 delay=0.05 tag=story]]

    words=N        how many words the answer has (8)       delay=S   seconds before each word (0)
    first=S        seconds before the first event (0)      before=S  seconds before the headers (0)
    tag=NAME       count this call under NAME              size=N    bytes of each word (short)
    tool=NAME args={...}   call that tool first; answer in words once its output is in the input
    reasoning      put a reasoning item first, encrypted if the request includes that
    status=N retry_after=S           answer N with an error
    times=N        whatever goes wrong goes wrong only in the first N calls of the tag
    queued         answer with a queued response as JSON, whatever was asked
    html           the body of that error is an HTML page     usage_limit   … is Codex's usage limit
    stall=N        after N words, fall silent                 drop=N     … cut the connection
    eof=N          … end without a terminal event             malformed=N  … send what is no JSON
    error=N        … send an `error` event and end            fail       end with response.failed
    twice=N        … send the latest event once more
    early=hangup   cut the connection without an answer; drop or stall: after the opening events
    incomplete     end with response.incomplete              linger=S  … leave it open S seconds

The path chooses the manners: /openai/v1 (insists on an explicit store:false), /codex (the strict
Codex backend), /transformers/v1, /llamacpp/v1, /vllm/v1 (as the real servers of those names were
seen to behave), /storing/v1 (keeps responses, and runs them in the background itself). The first
also has /responses/compact and /responses/input_tokens, the second /responses/compact; both know
the directives `before`, `status` and `html`. A model whose name starts with "plain" refuses
encrypted reasoning, with "unserved" is not served, with "obliging" calls the first function that it
is offered, without being told. GET /seen tells what arrived, POST /forget starts counting anew. GET
/calls?from=N tells of each create from the Nth on when it began and how it ended, and forgets none.
"""

from tests.scripted_upstream.server import (
    PASSED_HEADERS,
    PRIVATE_HEADERS,
    Seen,
    Upstream,
    start,
)

__all__ = ["PASSED_HEADERS", "PRIVATE_HEADERS", "Seen", "Upstream", "start"]
