"""The open RT-2: co-fine-tune vision-language models on web and robot data, serve, drive robots."""

__version__ = "0.1.0.dev0"
