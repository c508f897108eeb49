"""Other people's classifiers: their contract, the process that they run in, the cases that they are asked, and what is said of them."""
