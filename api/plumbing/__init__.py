"""What every route stands on: registry, auth, forms, errors, headers, the hub."""
