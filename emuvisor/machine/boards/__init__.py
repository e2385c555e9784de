"""Boards: which chip sits where. A board is the only place that knows addresses and interrupt numbers."""
