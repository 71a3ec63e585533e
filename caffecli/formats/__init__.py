"""Files and their bytes <-> numpy arrays: blobs, datums, means, weights, solver states, databases. No torch here."""
