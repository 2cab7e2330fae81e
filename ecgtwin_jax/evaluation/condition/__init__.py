"""Does a generated ECG show the condition?"""
