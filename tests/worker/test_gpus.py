import os
import subprocess
import sys
from pathlib import Path

from worker.gpus import Gpus


def test_a_kept_gpu_is_not_offered_again_until_it_is_released(tmp_path: Path) -> None:
    mine, other = Gpus(tmp_path, [0, 3]), Gpus(tmp_path, [3, 0])
    with mine.offer() as offer:
        assert offer.indices == [0, 3]
        hold = offer.keep([3])
    with other.offer() as offer:
        assert offer.indices == [0]
    hold.release()
    with other.offer() as offer:
        assert offer.indices == [0, 3]


def test_a_gpu_stays_taken_while_a_process_of_the_attempt_lives(tmp_path: Path) -> None:
    gpus = Gpus(tmp_path, [0])
    with gpus.offer() as offer:
        hold = offer.keep([0])
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=hold.descriptors) as child:
        hold.release()
        with gpus.offer() as offer:
            assert offer.indices == []
        assert child.stdin
        child.stdin.close()
        child.wait()
    with gpus.offer() as offer:
        assert offer.indices == [0]


def test_without_gpus_nothing_is_written(tmp_path: Path) -> None:
    with Gpus(tmp_path / "locks", []).offer() as offer:
        assert offer.indices == []
    assert not os.listdir(tmp_path)
