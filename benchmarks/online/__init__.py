"""Streams of classes, each asked for and then learned, and what classifies them."""
