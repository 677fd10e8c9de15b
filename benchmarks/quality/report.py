"""STUB"""
def section(): return ""
