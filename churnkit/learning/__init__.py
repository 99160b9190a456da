"""Features -> scores and reasons: labels, models, honest evaluation, and the one door to MLflow."""
