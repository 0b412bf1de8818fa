"""What a task puts on a backbone, as data: specs, and their plans for one backbone. Pure Python, no jax."""
