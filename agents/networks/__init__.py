"""Networks: from observations to policies, values and orders."""
