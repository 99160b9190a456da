"""Raw tables -> features: sources, validation, definitions, computation, and the one door to Feast."""
