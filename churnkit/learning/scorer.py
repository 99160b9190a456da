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
    """LightGBM's raw score through the calibration that stands in model.json."""

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
        raw = np.asarray(self.booster.predict(matrix, raw_score=True), dtype=float)
        kind, x, y = (self.data["calibration"][key] for key in ("kind", "x", "y"))
        if kind == "isotonic":
            p = np.interp(raw, x, y)
        else:
            p = 1 / (1 + np.exp(-np.clip(x[0] * raw + x[1] if kind == "platt" else raw, -50, 50)))
        return pd.DataFrame({"probability": np.clip(p, 1e-6, 1 - 1e-6)}, index=model_input.index)


set_model(Scorer())
