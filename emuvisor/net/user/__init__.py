"""The user-mode uplink: a network's way out through the host's sockets, without root.

    uplink       the thread between the network's port and all the rest
    slirp        one instance of libslirp: TCP, UDP, ping, ARP, neighbour discovery, router advertisements
    library      libslirp's structures and functions, by ctypes
    segments     long TCP segments towards guests
    egress       what guests may send out, and how much
    plan         who has which address
    dhcp         the DHCP server
    dns          messages of the name system
    resolver     the name server
    udp_forward  UDP from the host's ports to guests
    datagram     UDP in Ethernet frames

Why libslirp: a TCP that gets through loss, reordering, half-closed connections and hostile segments is most of the
work, and libslirp's has had decades of use behind QEMU and Podman, with distributions that mend its security.
Stacks in Python are made for probing networks, not for carrying traffic. By ctypes it needs neither a compiler nor a
Python package, only the distribution's small library. What it does poorly is done in front of it, in Python:
DHCP, DNS, UDP forwards, and the rules of what may pass. It sees only frames that `egress` let through.
"""
