"""The engine: signals over columns of events. Beside the domain, with numpy and the activities' messages."""
