"""The live half: cameras to frames to tracks to events, and the command line."""
