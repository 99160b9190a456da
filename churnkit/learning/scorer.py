"""The model as MLflow's pyfunc, for other people's tools; goes into the artefact as it stands and needs no churnkit.

Its input holds one column per feature (numbers as double, categories as string, both may be blank), its output the
calibrated probability. churnkit itself never runs this file: see registry.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class Scorer(PythonModel):
    """The raw score of trees, logistic regression or a blend, through the calibration that stands in model.json."""

    def load_context(self, context: Any) -> None:
        """Reads both texts."""
        self.booster = lightgbm.Booster(model_file=context.artifacts["text"])
        self.data = json.loads(Path(context.artifacts["json"]).read_text(encoding="utf-8"))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """One probability per row."""
        matrix = np.empty((len(model_input), len(self.data["features"])))
        for place, name in enumerate(self.data["features"]):
            if name in self.data["levels"]:
                codes = {word: float(code) for code, word in enumerate(self.data["levels"][name])}
                matrix[:, place] = model_input[name].map(codes).to_numpy(dtype=float, na_value=np.nan)
            else:
                matrix[:, place] = pd.to_numeric(model_input[name], errors="coerce").to_numpy(
                    dtype=float, na_value=np.nan
                )
        matrix[np.isinf(matrix)] = np.nan
        blend, trees = self.data["blend"], np.asarray(self.booster.predict(matrix, raw_score=True), dtype=float)
        raw = blend["trees"] * trees + blend["logistic"] * self._logistic(matrix, model_input)
        kind, x, y = (self.data["calibration"][key] for key in ("kind", "x", "y"))
        if kind == "isotonic":
            p = np.interp(raw, x, y)
        elif kind == "beta":
            log_p, log_q = -np.logaddexp(0, -raw), -np.logaddexp(0, raw)
            p = 1 / (1 + np.exp(-np.clip(x[0] * log_p - x[1] * log_q + x[2], -50, 50)))
        else:
            p = 1 / (1 + np.exp(-np.clip(x[0] * raw + x[1] if kind == "platt" else raw, -50, 50)))
        return pd.DataFrame({"probability": np.clip(p, 1e-6, 1 - 1e-6)}, index=model_input.index)

    def _logistic(self, matrix: np.ndarray[Any, Any], model_input: pd.DataFrame) -> np.ndarray[Any, Any]:
        """The logistic regression's log-odds."""
        plain = self.data["baseline"]
        raw = np.full(len(matrix), plain["intercept"])
        for name, (median, mean, deviation, weight, missing) in sorted(plain["numbers"].items()):
            values = matrix[:, self.data["features"].index(name)]
            blank = np.isnan(values)
            raw += weight * np.clip((np.where(blank, median, values) - mean) / deviation, -5, 5) + missing * blank
        for name, weights in sorted(plain["words"].items()):
            raw += model_input[name].map(weights).astype("float64").fillna(0.0).to_numpy()
        return raw


set_model(Scorer())
