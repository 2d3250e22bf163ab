"""Views of an image: where it is cut, how it is coloured, and the two of a siamese network."""
