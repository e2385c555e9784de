"""Virtual networks: what lies between the guests' network cards, and between them and the world.

    config      a network's configuration
    network     the switch
    port        one station's connection to it, with its statistics
    inbox       frames for an uplink's own thread
    mactable    which station is behind which port
    addresses   which IP address belongs to which port
    guard       anti-spoofing: what a guest must not send
    frames      where the headers of a frame are
    offload     checksums and segments that a sender left to its card
    checksum    the Internet checksum
    statistics  what passed a port, and why the rest did not
    capture     recording what passes; pcapng: the file format of it
    forward     from a port of the host into a guest
    user        the uplink through the host's sockets; tap: the one through an interface of the host

A network is used by the threads of all its stations at once: whoever sends does the work of forwarding.
"""
