"""DES against published vectors, and VNC's use of it."""

import pytest

from emuvisor.vnc.des import encrypt_block, vnc_response


@pytest.mark.parametrize(
    ("key", "block", "result"),
    [
        ("133457799bbcdff1", "0123456789abcdef", "85e813540f0ab405"),  # J. Orlin Grabbe, "The DES Algorithm"
        # NIST SP 800-17, tables B.1 (variable plaintext), B.2 (variable key) and the substitution table test
        ("0101010101010101", "8000000000000000", "95f8a5e5dd31d900"),
        ("0101010101010101", "0000000000000001", "166b40b44aba4bd6"),
        ("8001010101010101", "0000000000000000", "95a8d72813daa94d"),
        ("7ca110454a1a6e57", "01a1d6d039776742", "690f5b0d9a26939b"),
        ("0131d9619dc1376e", "5cd54ca83def57da", "7a389d10354bd271"),
        ("07a1133e4a0b2686", "0248d43806f67172", "868ebb51cab4599a"),
        ("3849674c2602319e", "51454b582ddf440a", "7178876e01f19b2a"),
        ("04b915ba43feb5b6", "42fd443059577fa2", "af37fb421f8c4095"),
        ("0113b970fd34f2ce", "059b5e0851cf143a", "86a560f10ec6d85b"),
        ("0170f175468fb5e6", "0756d8e0774761d2", "0cd3da020021dc09"),
        ("43297fad38e373fe", "762514b829bf486a", "ea676b2cb7db2b7a"),
    ],
)  # fmt: skip
def test_published_vectors(key: str, block: str, result: str) -> None:
    assert encrypt_block(bytes.fromhex(key), bytes.fromhex(block)).hex() == result


def test_the_password_is_a_key_of_reversed_bytes() -> None:
    challenge = bytes(range(16))
    key = bytes.fromhex("0e86ceceeef64e26")  # p a s s w o r d, each from its lowest bit to its highest
    expected = encrypt_block(key, challenge[:8]) + encrypt_block(key, challenge[8:])
    assert vnc_response(b"password", challenge) == expected
    assert vnc_response(b"pass", challenge) == vnc_response(b"pass\0\0\0\0", challenge)
