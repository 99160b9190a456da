"""For those who write a connector: the suite that it must pass, and a server for fakes with faults on demand."""
