"""Whether the last bytes that were written to a connection can have reached the other side."""

import asyncio
import socket
import struct
import sys
from typing import Any, Final

_SIOCOUTQ: Final = 0x5411


def undelivered(transport: asyncio.Transport) -> bool:
    """Whether the peer, which has just ended its side, has not got all that was written.

    Its end acknowledges everything that had reached it. What had not is still in a buffer, or was
    answered with a reset, which a read does not tell once the end has come. Not what was delivered
    and left unread: that resets the connection.
    """
    if transport.get_write_buffer_size():
        return True
    sock: Any = transport.get_extra_info("socket")
    if sock is None:
        return False
    try:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return True
        return _unacknowledged(sock.fileno()) > 0
    except OSError:
        return True


def _unacknowledged(descriptor: int) -> int:
    # How many bytes were sent and not acknowledged; only Linux tells.
    if sys.platform != "linux":
        return 0
    import fcntl  # noqa: PLC0415 - not on every platform

    count: int = struct.unpack("i", fcntl.ioctl(descriptor, _SIOCOUTQ, bytes(4)))[0]
    return count
