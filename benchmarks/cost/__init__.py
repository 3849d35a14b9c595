"""What a step costs, and the peers that it is measured beside."""
