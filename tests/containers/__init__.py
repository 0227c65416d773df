"""The images as containers: each alone, and the whole product, while containers die, freeze and lose the network."""
