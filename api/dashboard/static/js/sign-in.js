// The page behind a one-time link signs in by itself; its button does the same where scripts are off.
document.querySelector("form[data-submit]")?.requestSubmit();
