"""What is kept on disk: the engine's state and the embedded log, both in RocksDB."""
