"""From files to arrays: images, labels, and the decoded cache of a run."""
