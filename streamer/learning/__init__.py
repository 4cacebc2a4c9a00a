"""Beside the stream: outcomes meet the payments that they are about, and models learn from them."""
