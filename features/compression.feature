Feature: Small bodies that are alike take less space
  The server learns what the bodies of a queue have in common. Nobody sees it, except on the disk.

  Scenario: A queue with many small bodies gets a dictionary
    Given a running server
    And 4000 orders in "mail"
    When the server is stopped
    And the data directory is checked
    Then the command succeeds
    And it prints "compressed with 1 of at most 255 dictionaries"
    When the server is started again
    And a worker fetches from "mail"
    Then it gets the job "0" as attempt 1 with the body {"currency":"EUR","email":"user0@example.com","order":0,"template":"order-confirmed"}
