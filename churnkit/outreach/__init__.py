"""Scores and signals -> tasks -> outcomes: policy, plan, brief, outbox and CRM sync."""
