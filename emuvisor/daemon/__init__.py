"""`emuvisor serve`: guests over HTTP (docs/daemon.md).

limits.py          how much clients may ask for
unixsocket.py      the Unix socket; token.py: the secret of those who come over TCP; access.py: what they may name
faults.py          errors to HTTP and back
service.py         what all sockets have in common: hub.py rings for news, operations.py runs what takes long,
                   exports.py keeps files that come and go
guard.py           before the application: tokens, sizes, times
app.py             the application: dependencies.py and bodies.py, and the routes: host_routes.py, guest_routes.py,
                   snapshot_routes.py, file_routes.py, console_routes.py; stream.py: events as server-sent events
server.py          uvicorn in a thread; http_protocol.py: its patience; systemd.py: sd_notify
client.py          `Manager` at the other end: transport.py, remote_console.py
"""
