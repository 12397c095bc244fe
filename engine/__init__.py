"""Models on arrays: detect, align, embed, run. No video, no broker, no configuration files."""
