// Posts the ticket to the desktop's own origin at once. Without scripts the button does the same.
"use strict";
const form = document.getElementById("ticket");
if (form && !sessionStorage.getItem(form.elements.ticket.value)) {
  sessionStorage.setItem(form.elements.ticket.value, "sent"); // a ticket is for one use: going back must not send it again
  form.submit();
}
