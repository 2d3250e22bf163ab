"""From counts to scores; the one place, with the probes, where labels matter."""
