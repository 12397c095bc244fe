"""Make models and judge them."""
