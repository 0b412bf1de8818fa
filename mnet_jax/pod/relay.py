"""A way to the first process's service that stays open when that process ends.

jax's client aborts its whole process, with a stack of C++, as soon as its connection to the service closes. Through a
`Relay` it sees silence in place of that, and `members.py` has the time to leave with a reason.
"""

import contextlib
import socket
import threading
import time
from collections.abc import Callable


class Relay:
    """A port of this machine that passes everything on to another address, and back."""

    def __init__(self, address: str, patience: float, on_end: Callable[[], None]):
        """Listens at once.

        Args:
          address: "HOST:PORT" of the service.
          patience: seconds within which the service has to be there.
          on_end: called once the service, which was there, is gone.
        """
        host, _, port = address.rpartition(":")
        self._target = (host.strip("[]"), int(port))
        self._patience, self._on_end = patience, on_end
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open = [self._listener]
        self._start(self._listen)

    def close(self) -> None:
        """Ends all connections."""
        for end in self._open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        threading.Thread(target=work, args=args, name="relay", daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._open.append(client)
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        service = self._connect()
        if service is None:
            client.close()
            return
        for end in (client, service):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._start(self._send, client, service)
        self._pump(service, client)
        service.close()
        time.sleep(1)  # a process that ends closes one connection after the other
        if self._is_there():
            client.close()  # so that it connects again
        else:
            self._on_end()

    def _connect(self) -> socket.socket | None:
        """Returns a connection to the service, which may not have begun yet."""
        until = time.monotonic() + self._patience
        while time.monotonic() < until:
            with contextlib.suppress(OSError):
                service = socket.create_connection(self._target, timeout=10)
                service.settimeout(None)
                return service
            time.sleep(0.2)
        return None

    def _is_there(self) -> bool:
        try:
            socket.create_connection(self._target, timeout=5).close()
        except OSError:
            return False
        return True

    def _send(self, client: socket.socket, service: socket.socket) -> None:
        self._pump(client, service)
        with contextlib.suppress(OSError):
            service.shutdown(socket.SHUT_WR)

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        """Passes on what comes until there is no more."""
        with contextlib.suppress(OSError):
            while part := source.recv(1 << 16):
                sink.sendall(part)
