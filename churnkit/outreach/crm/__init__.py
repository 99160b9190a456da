"""The connectors: one file per CRM, each the only one that imports its client."""
