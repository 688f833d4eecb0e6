"""Using a trained model: pictures, predictions, features."""
