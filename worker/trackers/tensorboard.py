"""TensorBoard: event files in a directory, one folder a run. Neither torch nor TensorFlow is needed."""

import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.plugins.text.metadata import create_summary_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from worker.trackers.base import Card, Points


class TensorBoard:
    """Writes event files. What a file begins with tells readers to drop points of earlier files from that step on."""

    def __init__(self, target: str) -> None:
        self._root = Path(target).absolute()
        self._writers: dict[str, EventFileWriter] = {}

    def write(self, card: Card, points: Points, external_id: str, first_step: int) -> str:
        """Adds points to the run's files."""
        folder = external_id or f"{card.group}/{card.name}-{card.id[-6:]}"
        writer = self._writers.get(card.id)
        if writer is None:
            (self._root / folder).mkdir(parents=True, exist_ok=True)
            writer = self._writers[card.id] = EventFileWriter(str(self._root / folder))
            begin = Event(wall_time=time.time(), step=first_step, session_log=SessionLog(status=SessionLog.START))
            writer.add_event(begin)
            if not external_id:
                self._describe(writer, card)
        for step, values in points:
            summary = Summary(value=[Summary.Value(tag=key, simple_value=value) for key, value in values.items()])
            writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))
        writer.flush()
        return folder

    def _describe(self, writer: EventFileWriter, card: Card) -> None:
        """Configuration as hyperparameters, tags as a text."""
        hyperparameters = {**card.config, **{f"tag.{name}": value for name, value in card.tags.items()}}
        writer.add_event(Event(wall_time=time.time(), summary=hparams_pb(hyperparameters, trial_id=card.id)))
        text = "\n".join(f"- **{name}**: {value}" for name, value in {"run": card.id, **card.tags}.items())
        value = Summary.Value(
            tag="run/text_summary",
            metadata=create_summary_metadata(display_name="", description=""),
            tensor=make_tensor_proto([text.encode()]),
        )
        writer.add_event(Event(wall_time=time.time(), summary=Summary(value=[value])))

    def end(self, card: Card, external_id: str, *, succeeded: bool) -> None:
        """Closes the run's file."""
        writer = self._writers.pop(card.id, None)
        if writer is not None:
            writer.close()

    def close(self) -> None:
        """Closes every file."""
        while self._writers:
            self._writers.popitem()[1].close()
