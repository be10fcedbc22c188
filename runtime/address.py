"""`HOST:PORT`, as one writes where something shall listen."""


def host_and_port(text: str, host: str, port: int) -> tuple[str, int]:
    """`text` as host and port, with those given where it names none; ValueError for a port that is none."""
    named, _, number = text.rpartition(":") if ":" in text else (text, "", "")
    if number and not (number.isdecimal() and int(number) <= 65535):
        raise ValueError(f"port {number!r}, expected 0 to 65535, as in {host}:{port}")
    return named.strip("[]") or host, int(number or port)
