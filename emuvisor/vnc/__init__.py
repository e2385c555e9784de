"""A guest's screen over the network: the RFB protocol, which VNC viewers speak.

    server      listens, and gives every viewer a session; runs in a thread of its own
    session     one viewer: handshake, messages, updates
    address     texts such as ":1" and "unix:/path", and the sockets that listen there
    rfb         the protocol's numbers and messages
    encoding    pixels to bytes: pixel formats, Raw, ZRLE
    damage      which tiles of the screen have changed
    des         the cipher of VNC's password check

It knows no guest: the server is given functions for the screen, the keyboard and the mouse.
"""
