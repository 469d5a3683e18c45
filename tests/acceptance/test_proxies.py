"""An https upstream through a forward proxy: the real command, a real tunnel, real TLS."""

from pathlib import Path

import pytest
from openai import AsyncOpenAI

from tests.acceptance import processes
from tests.acceptance.processes import CALLER_KEY, UPSTREAM_KEY
from tests.certificates import server_context
from tests.conftest import Scripted
from tests.forward_proxy import forward_proxy, tls_in_front_of

LOGIN = "Basic YW5uOnMzY3IzdC1vZi10aGUtcHJveHk="  # ann:s3cr3t-of-the-proxy


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_https_upstream_is_reached_through_a_tunnel_that_hides_the_request(
    tmp_path: Path, upstream: Scripted, scheme: str
) -> None:
    context, trusted = server_context(tmp_path, name="upstream.test")
    ours = context if scheme == "https" else None
    async with (
        tls_in_front_of(upstream.port, context) as secure,
        forward_proxy(secure, login=LOGIN, context=ours) as proxy,
    ):
        environment = {
            "SSL_CERT_FILE": str(trusted),
            "HTTPS_PROXY": f"{scheme}://ann:s3cr3t-of-the-proxy@127.0.0.1:{proxy.port}",
        }
        with processes.gateway(
            tmp_path, upstream="HTTPS://upstream.test/openai/v1", environment=environment
        ) as gateway:
            async with AsyncOpenAI(base_url=gateway.url, api_key=CALLER_KEY) as client:
                for _ in range(2):
                    response = await client.responses.create(model="m", input="hi [[words=3]]")
                    assert len(response.output_text.split()) == 3
            assert proxy.asked == ["CONNECT upstream.test:443 HTTP/1.1"]
            assert UPSTREAM_KEY not in str(proxy.headers)
            sent = {k.lower(): v for k, v in upstream.seen.requests[-1]["headers"].items()}
            assert sent["authorization"] == f"Bearer {UPSTREAM_KEY}"
            assert "proxy-authorization" not in sent
            gateway.stop()
        assert "s3cr3t" not in gateway.log.read_text()
