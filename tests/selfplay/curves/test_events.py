"""TensorBoard's event files: what is written is read by TensorBoard, on a full disk too; damage is found."""

import errno
import threading

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlbits.selfplay.curves.events import EventWriter, Records, check_records
from mlbits.selfplay.curves.tracking import CurvesError, Tracker
from tests.crashes.disk import full_disk


def scalars(folder):
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("x")]


@pytest.fixture
def written(tmp_path):
    writer = EventWriter(tmp_path)
    for step in range(5):
        writer.add_scalar("x", step, step)
    writer.close()
    return writer.path


def test_tensorboard_reads_what_was_written_without_a_thread(written, tmp_path):
    assert scalars(tmp_path) == [(step, step) for step in range(5)]
    assert check_records(written) == Records(whole=6, damaged=False, rest=0)  # the first says the version
    before = threading.active_count()
    again = EventWriter(tmp_path, purge_step=3)
    again.add_scalar("x", 30.0, 3)
    assert threading.active_count() == before
    again.close()
    assert again.path != written
    assert scalars(tmp_path) == [(0, 0), (1, 1), (2, 2), (3, 30)]


def test_every_cut_and_every_flipped_bit_is_found(written, tmp_path):
    data, ends = written.read_bytes(), [0]
    while ends[-1] < len(data):
        ends.append(ends[-1] + 16 + int.from_bytes(data[ends[-1] : ends[-1] + 8], "little"))
    changed = tmp_path / "changed"
    for cut in range(len(data)):
        changed.write_bytes(data[:cut])
        whole = max(k for k, end in enumerate(ends) if end <= cut)
        assert check_records(changed) == Records(whole, False, cut - ends[whole])
        changed.write_bytes(data[:cut] + bytes([data[cut] ^ 1 << cut % 8]) + data[cut + 1 :])
        whole = max(k for k, end in enumerate(ends) if end <= cut)
        assert check_records(changed) == Records(whole, True, len(data) - ends[whole]), cut


def test_zeros_at_the_end_are_what_a_power_loss_leaves(written):
    data = written.read_bytes()
    written.write_bytes(data + bytes(100_000))
    assert check_records(written) == Records(whole=6, damaged=False, rest=100_000)
    written.write_bytes(data + bytes(100_000) + b"\1")
    assert check_records(written) == Records(whole=6, damaged=True, rest=100_001)


@pytest.mark.parametrize("forever", [True, False])
def test_a_full_disk_is_one_error_from_the_first_record_on(forever, tmp_path, monkeypatch):
    """Also the file's first records, which TensorBoard's own writer makes in a thread that ends with a traceback."""
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    at, calls, failed = 0, [1], 0
    while at == 0 or len(calls) >= at:
        at += 1
        folder = tmp_path / str(at)
        folder.mkdir()
        with full_disk(at, forever) as calls:
            try:
                tracker = Tracker(folder, 100, console=False)
                try:
                    tracker.describe({"agent": "ppo", "env": "x", "run": {"seed": 1}})
                    tracker.record(10, {"x": 1.0})
                    tracker.flush()
                finally:
                    tracker.close()
            except CurvesError as error:
                failed += 1
                assert str(error) == (
                    f"{folder}: the curves cannot be written ([Errno {errno.ENOSPC}] No space left on device); earlier "
                    "checkpoints are unharmed"
                )
    assert failed == at - 1 > 8
    assert not died
