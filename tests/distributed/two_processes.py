"""Two real processes that talk by gloo on this machine, as torchrun would have started them."""

import multiprocessing
import os
import pickle
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

import torch

from contextseg.errors import ContextsegError

PATIENCE_S = 300  # for a slow machine; what is awaited takes a second or two
_CONTEXT = multiprocessing.get_context("forkserver")  # the server imports torch once, for all processes
_CONTEXT.set_forkserver_preload(["contextseg.verbs", "two_processes"])


class Two:
    """A function that runs in both.

    Attributes:
        processes: rank 0 and rank 1.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._ends = [_CONTEXT.Pipe(duplex=False) for _ in range(2)]
        self.processes: list[ForkServerProcess] = [
            _CONTEXT.Process(target=_run, args=(end, rank, port, pickle.dumps((function, args))), daemon=True)
            for rank, (_, end) in enumerate(self._ends)
        ]
        for process in self.processes:
            process.start()
        for _, end in self._ends:
            end.close()  # so that the end of a process is seen here

    def result(self, rank: int) -> Any:
        """Return what the function gives in one process, or the contextseg error that it raises.

        Raises:
            EOFError: it ended without, killed or by another error.
        """
        assert self._ends[rank][0].poll(PATIENCE_S), f"process {rank} did not end in {PATIENCE_S} s"
        return pickle.loads(self._ends[rank][0].recv_bytes())


def both(function: Callable[..., Any], *args: Any) -> list[Any]:
    """Run a function in both processes and return what each gives, or raises of contextseg's errors."""
    two = Two(function, *args)
    return [two.result(rank) for rank in range(2)]


def _run(end: Connection, rank: int, port: int, call: bytes) -> None:
    own = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "tests"}
    os.environ.update({name: str(value) for name, value in (own | common).items()})
    torch.set_num_threads(1)
    function, args = pickle.loads(call)
    try:
        result = function(*args)
    except ContextsegError as error:
        result = error
    # by pickle, as multiprocessing would leave tensors in the process, which ends here
    end.send_bytes(pickle.dumps(result))
