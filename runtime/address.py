"""`HOST:PORT`, as one writes where something shall listen, and who can reach it."""

import ipaddress


def host_and_port(text: str, host: str, port: int) -> tuple[str, int]:
    """`text` as host and port, with those given where it names none; ValueError for a port that is none."""
    named, _, number = text.rpartition(":") if ":" in text else (text, "", "")
    if number and not (number.isdecimal() and int(number) <= 65535):
        raise ValueError(f"port {number!r}, expected 0 to 65535, as in {host}:{port}")
    return named.strip("[]") or host, int(number or port)


def local_names(host: str) -> tuple[str, ...]:
    """This machine's names for what listens at `host`, which `is_local`.

    What asks for no token answers to no other, or any web page could rename itself to one of these (DNS rebinding) and
    look through the camera.
    """
    return tuple(dict.fromkeys(("127.0.0.1", "localhost", "::1", "[::1]", host)))


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens at `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
