"""Ways from a FUSE client to the server: straight into it, or through a driver's queue."""

from driver import Driver
from fuse_client import BytesMessage, Send

from emuvisor.devices.virtio.fs.server import FuseServer

REQUESTS = 1


def send_to(server: FuseServer) -> Send:
    def send(pieces: list[bytes], room: int) -> bytes:
        message = BytesMessage(b"".join(pieces), room)
        return bytes(message.reply[: server.serve(message)])

    return send


def send_over(driver: Driver) -> Send:
    def send(pieces: list[bytes], room: int) -> bytes:
        reply = driver.request(REQUESTS, pieces, [min(room, 16), max(room - 16, 0)])
        assert reply is not None
        return reply

    return send
