"""What a run measured: metrics.csv, a row a step, and TensorBoard; both forget what a resumed run measures again."""

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from derain.training.atomic import append_text, write_text


class CsvLog(Logger):
    """Appends rows to one file. The step of a row is the number of iterations before it; columns come as they appear.

    `keep`: rows of earlier steps are kept, later ones, which a resumed run measures again, are dropped.
    """

    def __init__(self, path: Path, keep: int = 0) -> None:
        super().__init__()
        self.path = path
        self.columns = ["step"]
        self.rows: list[dict[str, Any]] = []
        self.written = False
        if keep and path.is_file():
            with path.open(newline="") as stream:
                whole = [row for row in csv.DictReader(stream) if None not in row and None not in row.values()]
            self.rows = [row for row in whole if int(row["step"]) < keep]
            self.columns = list(whole[0]) if whole else self.columns

    @property
    def name(self) -> None:
        """None; there is one log a run."""
        return None

    @property
    def version(self) -> str:
        """Empty; there is one log a run."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add a row and write it."""
        row = {"step": step, **metrics}
        new = [key for key in row if key not in self.columns]
        self.columns += new
        self.rows.append(row)
        if new or not (self.written and self.path.is_file()):
            self._rewrite()
        else:
            append_text(self.path, self._text([row]))

    def _rewrite(self) -> None:
        write_text(self.path, self._text([dict(zip(self.columns, self.columns, strict=True)), *self.rows]))
        self.written = True

    def _text(self, rows: list[dict[str, Any]]) -> str:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self.columns, restval="").writerows(rows)
        return text.getvalue()


def require_tensorboard() -> None:
    """Raise ValueError where TensorBoard is wanted and not installed."""
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        raise ValueError("tensorboard is true, but it is not installed: pip install tensorboard, or set it to false")


def tensorboard(out: Path, keep: int) -> TensorBoardLogger:
    """Scalars and panels in OUT/tensorboard; what an earlier process logged from step `keep` on is hidden."""
    purge: dict[str, Any] = {"purge_step": keep} if keep else {}
    return TensorBoardLogger(out, name="", version="tensorboard", default_hp_metric=False, **purge)
