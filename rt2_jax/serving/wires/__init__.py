"""The wires: each makes a request of what its clients send, and sends the answer in its way."""
