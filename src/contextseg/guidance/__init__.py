"""Pyramid Semantic Guidance: what whole regions are, across images, guides which cluster a pixel joins."""
