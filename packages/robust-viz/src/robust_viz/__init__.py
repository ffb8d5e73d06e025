"""See why an image model is robust: decision boundaries and curves as matplotlib figures."""
